"""What nobody is to see: keys, and sealing, opening and redacting what is sensitive."""
