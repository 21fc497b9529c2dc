"""The records that loop nests and generated code are told by: what their fields are, and how compiled code reads them.

Loops pass the address of a record, so that every caller shares one compiled signature.
"""

from __future__ import annotations

import numpy as np
from numba import from_dtype
from numba.extending import intrinsic


def _integers(names: str) -> np.dtype:
    """A record of 64-bit integers with these names."""
    return np.dtype([(name, np.int64) for name in names.split()])


#: One call of the core over a block of tiles.  Addresses and pitches are in bytes, `columns` in elements.  The rows of a tile are
#: `c_step` rows of C apart.  C may be `streamed` past the caches where its vectors are aligned, or be `far_results` beyond the L2,
#: which tall tiles ask for; `fetch` asks for the rows of A of the next tile, which has one tap.  `cold` weights are in no cache
#: when the call starts; `following` is the address of what the next call reads of them, or 0.
CALL = _integers(
    "a zeros tiles tile_count tiles_outside fetch cold k panels panel_bytes following c c_pitch c_step streamed far_results "
    "columns bias residual residual_pitch activation"
)

#: One call of the core of sliding tiles: lines of output rows, walked down one tile wide.  It starts with the `WINDOW` of its runs.
#: A group has so many `channels`, in a strip `plane` bytes apart; `expansions` is the address of how vectors find them.  Of the
#: kernel's slices, `slices` from number `front` on meet the input; `runs_made` says for which tile and slices the workspace holds
#: runs that read the input in place, 0 for none.
SLIDE = _integers(
    "position weight channels plane expansions a a_line runs runs_per_row h stride_h dilation_h h_in k_h lines height "
    "panels panel_count panel_bytes c c_line c_pitch columns bias residual residual_line residual_pitch activation bordered "
    "front slices runs_made"
)

#: One call of the core of planes: tiles of a strip.  It starts with the `WINDOW` of its runs.
PLANE = _integers("position weight a tiles tile_count weights bias c c_pitch columns residual activation")

#: `n` signals of `size` samples convolved with a kernel of `k` taps: `rows` vectors of each result, from sample `start` of the full
#: convolution on, in blocks of `block` rows; `runs` are records of so many runs, `zero` is the address of a bias, and the strip
#: begins `strip` bytes into the workspace.
SIGNAL = _integers("n size k start rows block strip core runs run_count zero activation")

#: One convolution as the loops see it; channels are those of one group, pitches and addresses in bytes.  `window` is the number
#: of taps of the kernel, and `in_pixels` and `out_pixels` are those of one image.
CONV = _integers(
    "n d_in h_in w_in in_pixels c_in d_out h_out w_out out_pixels c_out groups k_d k_h k_w window stride_d stride_h stride_w "
    "dilation_d dilation_h dilation_w pad_front pad_top pad_left padding_mode "
    "x_pixel x_image out_pixel residual_pixel streamed itemsize panels panel_bytes panels_per_group bias zeros activation "
    "core packer lines line tiles_per_line tile_block column_block tiles_outside fetch cold k_block patch_pitch tiles taps tables "
    "own_channels read_in_place strip_channels kernel piece pixels bordered stretch group_out phases hop step out_step line_block "
    "strip_lines walk_lines ring turns outputs image_step slice_step line_step column_step "
    "images inner_bytes phases_h hop_h reach_h positions phase_pitch row_pitch rows_pitch strip_pitch strips "
    "m_h m_w n_h n_w tiles_h tiles_w data_offset data_pitch data_position product_pitch product_position input_transform "
    "output_transform input_table output_table residual_table block_slices chunks keeps tile_step "
    "kernel_transform kernel_block kernel_offset kernel_position "
    "steps low block_pitch position_bytes shared tile_height far_results unit_block unit_pitch pair_pitch "
    "scales scale_step scaled guessed met_first met_last unit chunk sums_pitch "
    "row_pixels registers gang woven patches_together member_pitch panel_step half_step inner inner_function product_offset "
    "bands band_count band_step band_low band_first band_pairs bands_offset out_row"
)

#: A block of Winograd tiles on its way through one thread: tiles `first`..`first + count` of all images, output slices
#: `slice`..`slice + slices` of each, channels `channel`..`channel + channels` of what is transformed, and addresses.  Of the input
#: slices under them, those before `first_slot` are transformed already.  Of the kernels, `count_k` channels of a `phase` are
#: transformed at a time, from the first one's first tap at `taps` to `kernels`.
BLOCK = _integers(
    "conv first count slice slices first_slot channel channels x out residual data products table residual_table spare "
    "taps phase count_k kernels"
)

#: Matrices to be transposed, `together` vectors of each row at a time; pitches in bytes.
TRANSPOSE = _integers("n rows columns x_row x_image out_row out_image together")

#: Operations on elements: `n_0` x `n_1` x `n_2` blocks of `rows` rows of `count` neighbouring elements.  Pitches of the operands
#: are in bytes, from element to element (0 or the element's size), row to row, and block to block.  `split` tells which of blocks,
#: rows and elements (0, 1, 2) threads share out.  Rows without gaps may be taken `joined` at a time, with as many copies of each
#: operand whose rows are all the same one.
ELEMENTWISE = _integers(
    "operation split joined n_0 n_1 n_2 rows count a_step b_step out_row a_row b_row out_0 a_0 b_0 out_1 a_1 b_1 out_2 a_2 b_2"
)

#: Reductions: `m_0` x `m_1` x `m_2` times, runs of `count` neighbouring elements are reduced over `n_0` x `n_1` x `n_2` steps:
#: element by element, or `across` the run, too.  Pitches are in bytes, `chunk` elements of a run are one piece of work; results are
#: divided by `divisor`.
REDUCE = _integers(
    "operation across m_0 m_1 m_2 n_0 n_1 n_2 count chunk divisor x_m_0 x_m_1 x_m_2 out_m_0 out_m_1 out_m_2 "
    "x_n_0 x_n_1 x_n_2"
)

#: A pool: windows over pixels `x_pixel` bytes apart.  Where `padded` says so, padding counts in a mean: `pad` elements
#: before each axis and `end` behind it.
POOL = _integers(
    "operation mean padded n channels x_pixel out_pixel size_d size_h size_w out_d out_h out_w k_d k_h k_w "
    "stride_d stride_h stride_w dilation_d dilation_h dilation_w pad_d pad_h pad_w end_d end_h end_w"
)

#: A resampling: each output pixel is a sum over taps along three axes.  `at_*` are tables of byte offsets, `weight_*` of weights,
#: with `taps_*` entries for each position of the output.
RESAMPLE = _integers(
    "n channels x_image out_pixel out_d out_h out_w taps_d taps_h taps_w at_d at_h at_w weight_d weight_h weight_w"
)

#: Rows of `count` elements: their exponentials' shares of the sum, or their logarithms; or normalised, times `gain`, plus `bias`.
ROWS = _integers("rows count x_row out_row logarithm gain bias")

#: Rows of `count` elements, each times a power of `bias` plus `scale` times the sum of the squares of `size` elements around it.
RESPONSE = np.dtype(_integers("rows count x_row out_row size").descr + [("scale", "f8"), ("bias", "f8")])

#: Softmax over few `classes` of `pixels` of each image; classes lie `x_class` and `out_class` bytes apart, or 0 where each pixel's
#: classes are neighbours.
CLASSES = _integers("images pixels classes x_image x_class out_image out_class")

#: Channels-last images whose channels are scaled and shifted, by `gain` and `bias` (addresses, 0 for ones and zeros) after groups
#: of `each` channels were brought to mean 0 and variance 1 (plus `epsilon`).  Moments are those of `pieces`: rows of `joined`
#: pixels, `chunk` of the image's `rows` a piece, and the pixels left over; `moments` bytes for each image, none where `pieces` is
#: 0.  Elements of `run` pixels are scaled at a time.  `x_pixel` and `out_pixel` are in bytes.
SCALING = np.dtype(
    _integers(
        "images pixels channels each x_pixel out_pixel joined rows chunk pieces moments gain bias run activation"
    ).descr
    + [("epsilon", "f8")]
)

#: One step of a program: a function that computes shares of some work, how many rows and columns of shares there are, the record
#: that tells it what to do, its operands, and workspace of which each share has `pitch` bytes.
STEP = np.dtype(
    _integers("function rows columns record x out residual workspace pitch").descr + [("alpha", "f8"), ("beta", "f8")]
)

#: One call of a packer: elements `k_first`..`k_last` of patches of tiles `first`..`first + count` of an image go to rows at `to`,
#: for the channels of a group; `x` is what the plan was given, `spare` the address of `SPARE` bytes.
PACK = _integers("conv x image group first count k_first k_last to spare")
SPARE = 64

#: What deformable convolution reads besides weights: x, and for each output pixel and tap where to look and how much to take of it.
#: Images of offsets and masks, their pixels and channels lie so many bytes apart; `mask` is 0 where there is none.
SAMPLES = _integers(
    "x offset offset_image offset_pixel offset_channel mask mask_image mask_pixel mask_channel group_channels"
)

#: Rows that are weighted sums of rows: those of number `indices[e]` for the entries e of a row, from `starts[row]` on.
NEIGHBOURS = _integers("rows starts indices weights channels")

#: Channels-last images to be enlarged; `places` is the address of the tables of rows and columns.
ENLARGE = _integers("n h_in w_in channels h_out w_out places")

#: Phases of an image, (n, h, w, down, across) pixels of so many bytes, to be interleaved into rows and columns of the result.
PHASES = _integers("n h w down across pixel h_out w_out")

#: A depthwise convolution between two of 1x1, strip by strip: functions and `CONV` records of the three (`expand` is 0 where there
#: is no first one), their activations' numbers in pairs at `scalars`, rows in bytes, and where things lie in the workspace.
BOTTLENECK = _integers(
    "n strips h_in h_out w_in w_out stride_h pad_top extent_h x_row x_image expand_function expand depthwise_function depthwise "
    "project_function project streamed far_results scalars expanded_row deep_row out_row residual_row at_expand at_project "
    "at_inner at_expanded at_deep"
)

#: Products of `distinct_0` x `distinct_1` matrices B of so many `panels`, each with `alike` matrices A: `packer` packs
#: `panel_block` panels at a time, by the `PACKING` record at `packing` and times `factor`; `function` multiplies by them, by the
#: `CONV` record at `conv`.  Matrices of A, B, C and residuals lie so many bytes apart.  In the workspace, panels and the inverse of
#: their scale lie `head` and `unit` bytes behind `at_panels`; the workspace of both functions starts at `at_inner`.
MATMUL = np.dtype(
    _integers(
        "distinct_0 distinct_1 alike panels panel_block packer packing function conv a_0 a_1 a_alike b_0 b_1 c_0 c_1 c_alike "
        "residual_0 residual_1 residual_alike head unit at_panels at_inner"
    ).descr
    + [("factor", "f8")]
)

#: A recurrent layer: `function` makes the gates of `n` sequences from their last results, by the `CONV` record of each direction,
#: one `conv_step` bytes behind the other from `conv` on.  Directions from number `backward` on begin with the last of the `steps`.
#: What x gives and results lie so many bytes apart: from step to step, direction to direction, sequence to sequence.  `initial` and
#: `initial_state` are addresses, one direction after the other, of results and states before the first step.
RECURRENT = _integers(
    "lstm steps directions backward n hidden gates function conv conv_step initial initial_state x_step x_direction x_row out_step "
    "out_direction out_row at_gates at_inner"
)

#: The gradient of a convolution's weights as the loops see it: x and y (the gradient of the result) with their pitches in bytes,
#: and a block of work, `slices` of lines of y; see `loops.gradient` and, for narrow groups, `loops.lanewise_gradient`.
GRADIENT = _integers(
    "n d_in h_in w_in c_in d_out h_out w_out c_out groups k_d k_h k_w stride_d stride_h stride_w dilation_d dilation_h dilation_w "
    "pad_front pad_top pad_left itemsize x_image x_channel x_pixel y_image y_channel y_pixel slices lines chunk rows phases "
    "positions phase_pitch row_pitch depth_pitch plane_pitch panel_bytes panels taps pattern_bytes patterns zeros core "
    "at_tiles at_panels at_planes segments blocks_h blocks_w vectors expansions in_place staged at_staging ones at_sums"
)


def record_at(dtype: np.dtype):
    """What compiled code reads the record of this type at an address with: `conv = conv_record(address)`, then `conv.n`."""
    result = from_dtype(dtype)

    @intrinsic
    def record(typingctx, address):
        def codegen(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(result))

        return result(address), codegen

    return record


call_record = record_at(CALL)
slide_record = record_at(SLIDE)
plane_record = record_at(PLANE)
signal_record = record_at(SIGNAL)
conv_record = record_at(CONV)
gradient_record = record_at(GRADIENT)
block_record = record_at(BLOCK)
transpose_record = record_at(TRANSPOSE)
elementwise_record = record_at(ELEMENTWISE)
reduce_record = record_at(REDUCE)
pool_record = record_at(POOL)
resample_record = record_at(RESAMPLE)
rows_record = record_at(ROWS)
response_record = record_at(RESPONSE)
classes_record = record_at(CLASSES)
scaling_record = record_at(SCALING)
step_record = record_at(STEP)
pack_record = record_at(PACK)
samples_record = record_at(SAMPLES)
neighbours_record = record_at(NEIGHBOURS)
enlarge_record = record_at(ENLARGE)
phases_record = record_at(PHASES)
bottleneck_record = record_at(BOTTLENECK)
recurrent_record = record_at(RECURRENT)
matmul_record = record_at(MATMUL)
