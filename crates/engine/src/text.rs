//! From token bytes to text: UTF-8 is never split, stop texts never leak.
