-- <= 2.13: the hypertable whose chunks are the compressed relations of the
-- hypertable $1; they inherit from it.
select format('%I.%I', p.schema_name, p.table_name)
from _timescaledb_catalog.hypertable h
join _timescaledb_catalog.hypertable p on p.id = h.compressed_hypertable_id
where h.id = $1
