"""Words on disk or wire become Settings and targets. Pure once the text is read.

Never here: a network request, an export path, a default that hides a missing word. Everything wrong is a
ConfigError that names file, field and fix; a rejected configuration changes nothing.
"""
