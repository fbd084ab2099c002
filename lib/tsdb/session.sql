-- Settings for every session of bf, whatever role and database say; each server
-- has some of them. Partitions that cannot hold a row of a range are not read. Compressed rows
-- must be read (transparent decompression), be found and replaced by what is written (DML
-- decompression), and what is written as rows must stay rows until we compress it; continuous
-- aggregates must learn of it. Chunks that are made where chunk skipping is off would be left
-- out by every query where it is on.
select count(set_config(v.name, v.value, false))
from (values
    ('timescaledb.enable_transparent_decompression', 'on'),
    ('timescaledb.enable_dml_decompression', 'on'),
    ('timescaledb.enable_direct_compress_copy', 'off'),
    ('timescaledb.enable_direct_compress_insert', 'off'),
    ('timescaledb.skip_cagg_invalidation', 'off'),
    ('timescaledb.enable_chunk_skipping', 'on'),
    ('enable_partition_pruning', 'on'),
    ('constraint_exclusion', 'partition')
) v(name, value)
where current_setting(v.name, true) is not null
