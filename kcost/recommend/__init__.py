"""From a model, traffic and limits to one decision, with the price of its doubt.

candidates.py: the ways of running a model that can be tried here, and those that cannot, with the reason.
schedule.py: which of them the next minutes go to: pure, and tested on simulated candidates.
flops.py, bounds.py: the least that a way could cost, from its products and the peak of the processor.
measuring.py drives the bench, standings.py prices what is measured while it goes on, pricing.py what is known then.
doubt.py: what choosing now is expected to lose. answer.py: the document and its words.
"""
