from ..dir1.dir1_a import dir1a_dict as dir1b_dict_from_a
from .dir1_a import dir1a_dict

dir1b_dict_from_a.a = "from b"
dir1b_dict = dict(a=dir1a_dict.a)
