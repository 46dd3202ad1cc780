"""What can be done to weights before they are lowered: pruning and calibrated quantisation.

Each change is a view of the weights (`models/source.py`), so that they still stream; the numbers
that decide a view (norms of activations, chosen channels, calibrated integers) are small or on
disk.
"""
