"""Drop-in faces of earlier libraries, each under its own name."""
