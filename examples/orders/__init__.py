"""An order desk: an agent that reserves stock, charges a card, books a courier, and can take it all back.

- ``desk``: the agent and its tools, as a user writes them
- ``shop``: the world outside it, a small HTTP service with stock, payments, a courier and a ``ledger``
- ``story``: what the scripted model says in the demo
- ``demo``: ``perdure demo``, and beside it ``parts`` and ``processes`` (what takes part), ``tale`` (what happens),
  ``narration`` (how it is told) and ``verdict`` (whether the shop's books are right)
"""
