//! See the layer's table of contents.
