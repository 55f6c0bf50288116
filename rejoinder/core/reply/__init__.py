"""What a reply consists of and when it sounds: prompt window, segments, playout, held clips and the answer cache.

Start at `segmenter.py` and `playout.py`. `actors.replying` performs what is decided here.
"""
