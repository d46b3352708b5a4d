"""What a state is made of: channels and their reducers, versions, and a stored state as an agent's own."""
