from itertools import count

from detectron2.config import LazyCall as L

from .dir1.dir1_a import dir1a_dict, dir1a_str, helper

dir1a_dict.a = "modified"

# Imported after the change: the other file must not see it.
from .dir1.dir1_b import dir1b_dict, dir1b_dict_from_a  # noqa: E402

lazyobj = L(count)(start=dir1a_str, step=dir1b_dict.a)
plain = dict(folder=__file__, nested=dict(helped=helper(2), from_b=dir1b_dict_from_a.a))
listed = [1, 2]
_hidden = dict(x=1)
