"""Processes that live: a server of exported models, and the load generator that measures one."""
