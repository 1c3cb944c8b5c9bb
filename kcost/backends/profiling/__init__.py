"""What a backend tells of a step: its operations, their time, and the work they are."""
