"""D4RL's tasks as D4RL had them, and its reference scores."""
