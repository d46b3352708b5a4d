"""How things look to a person: tables, and panels on a terminal. Nothing here is read by a program."""
