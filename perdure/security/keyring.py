class Keyring:
    pass
