"""What a graph is made of, how it is checked, compiled, drawn, and what follows a step of it."""
