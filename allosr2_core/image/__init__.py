"""Pictures: their sizes and colours, and files of them in and out.

In memory:
    geometry.py          sizes, resizing, padding, cropping
    values.py            what the values of an IMAGE may be
    resample.py          the result at the size that was asked for
    alpha.py             colours under transparent pixels
    color.py             the colours of the input for the result
    windowed_bicubic.py  the enlarged input, window by window
Files in:
    read.py          `read_header` and `load_image`: the content chooses the reader
    opening.py       what kind of file a path is; Pillow with our limits
    picture_file.py  what every reader offers: header, pixels, what the file says besides
    pillow_file.py   what Pillow reads on its own, animations among it; its modes as arrays
    png_file.py      PNG with all bits, and its colour descriptions; 16-bit PNG out
    jpeg_file.py     JPEG: cut files, second pictures
    tiff_file.py     TIFF: what the samples mean
    tiff_pages.py    TIFF: pages, strips and tiles
    profiles.py      ICC profiles applied
    transfer.py      curves, primaries and CIE Lab -> sRGB, as formulas
Files out:
    write.py       `save_image`, `save_frames`, and what can be written at all
    metadata.py    EXIF, XMP, text, resolution: from one file into the other
    tiff_write.py  TIFF pages of 8 and 16 bits
"""
