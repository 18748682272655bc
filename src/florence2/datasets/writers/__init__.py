"""Writers of data sets: labelled pictures in, the files of one format out, in a folder of their own."""
