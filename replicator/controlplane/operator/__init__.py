"""Gives devices their buckets and takes them back. Decides in `desired`, acts in `driver`; reads no Secret's words."""
