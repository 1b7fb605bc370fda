"""Faces of earlier libraries on the machinery of trax: their users change an import, and keep their files."""
