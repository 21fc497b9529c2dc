"""What can run a network, one file each; a worker loads just one of them, by its path (see `serving`).

A file offers

    version() -> str
    load(model, feed, folder, threads) -> (call, outputs)

where `call()` runs the network on `feed` (arrays by input, kept alive by the caller), and `outputs()` gives the results of the
last call as a list of arrays.  What a user does once and ahead of time stands in `convert(model, feed, folder)`, which is not
timed.  A network that the runtime cannot run is a `NotImplementedError` with the reason.
"""

#: Those that ours is compared with; each is installed under its name.
PEERS = ("onnxruntime", "openvino", "ncnn")
OURS = "numbaconv"
#: Outputs are compared with this one's.
JUDGE = "onnxruntime"
#: An interpreter that has imported Numba, and nothing else: what our process takes before it loads anything.
BARE = "bare"
#: The network evaluated in double precision.
FLOAT64 = "float64"
