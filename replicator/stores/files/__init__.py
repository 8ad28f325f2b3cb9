"""Every operation on the files of an export. The door is `export.Export`."""
