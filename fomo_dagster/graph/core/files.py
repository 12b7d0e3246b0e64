"""Names of the files in artifacts that other kinds of assets read."""

MANIFEST = "manifest.parquet"
SAMPLE = ["dataset", "key"]  # its columns that name a sample, which comes once in a stream
LISTING = "listing.parquet"
LISTING_COLUMNS = ("name", "size", "version")
STREAMED = "streamed.parquet"  # the shards of streamed datasets
PLACED_SHARDS = "placed_shards.parquet"  # name and digest of tars that an index in place knows
FEATURES = "features.parquet"  # of a split: key, and features, L2-normalised
