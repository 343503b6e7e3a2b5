"""The literature's ways to tell leucocytes apart, one file each, run on the same cells and the same split."""
