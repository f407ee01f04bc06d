"""drstudy: the helper library behind the numbered notebooks of the diabetic retinopathy study.

Rooms import only from rooms on lower floors (see docs/architecture.md); importing ``drstudy`` itself
imports nothing heavy.
"""

__version__ = "0.1.0"
