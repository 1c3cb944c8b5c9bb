"""What every other part speaks: plans, results, artifacts, errors, file versions and statistics.

Nothing in here imports a framework.
"""
