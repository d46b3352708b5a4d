"""The fault matrix: every class of tool call, struck by every fault, against the shop.

- ``bank``: the tools, one for each class and each way to find out afterwards how a call ended
- ``matrix``: the faults, the calls and the undoings that they strike, and the threads that make them
- ``oracle``: what must hold of each call, from the fault alone
- ``play``: one round: many threads, one worker process, one strike; and the people who settle what is in doubt
- ``findings``: what became of every call, held against the oracle; and the table of it
"""
