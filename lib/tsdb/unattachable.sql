-- What forbids that a plain table like the hypertable $1, in schema $2, is turned
-- into a chunk like the server's own by create_chunk(..., chunk_table); '' for
-- nothing.
--
-- TimescaleDB adopts matching indexes and constraints, and makes triggers,
-- dimension checks and replica identity itself. Left to the server are the
-- cases where it would not, or where a COPY that goes round the hypertable
-- could be noticed: by a continuous aggregate (attaching logs no
-- invalidation), by row triggers, by foreign keys (their check would hold the
-- lock on the referenced table), by subscribers of the database's changes.
with h as (
    select c.*, n.nspname, t.id as hypertable,
           (select r.rolsuper or r.oid = c.relowner from pg_roles r where r.rolname = current_user) as mine
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join _timescaledb_catalog.hypertable t on t.schema_name = n.nspname and t.table_name = c.relname
    where c.oid = $1
), ix as (
    select i.*, c.reltablespace, exists (select from pg_constraint k
        where k.conindid = i.indexrelid and k.conrelid = h.oid and k.contype in ('p', 'u')) as of_constraint,
           pg_get_indexdef(i.indexrelid) as def,
           format('CREATE %sINDEX %I ON %I.%I ', case when i.indisunique then 'UNIQUE ' else '' end,
               c.relname, h.nspname, h.relname) as prefix
    from h
    join pg_index i on i.indrelid = h.oid
    join pg_class c on c.oid = i.indexrelid
)
select case
           when h.relkind <> 'r' or h.relpersistence <> 'p' or h.reloftype <> 0
               or h.relam <> (select oid from pg_am where amname = 'heap')
               or exists (select from pg_inherits where inhrelid = h.oid) then 'the hypertable is no plain heap table'
           when not h.mine then 'the role is not the owner of the hypertable'
           when not has_schema_privilege($2::text, 'create') then 'the role may not create tables in ' || $2::text
           when exists (select from _timescaledb_catalog.continuous_agg where raw_hypertable_id = h.hypertable)
               then 'continuous aggregates have to hear of the rows'
           when exists (select from pg_trigger t
               where t.tgrelid = h.oid and not t.tgisinternal and t.tgtype & 5 = 5 and t.tgname not like 'ts\_%')
               then 'row triggers have to see the rows'
           when exists (select from pg_constraint where contype = 'f' and h.oid in (conrelid, confrelid))
               then 'foreign keys'
           when exists (select from pg_constraint
               where conrelid = h.oid and (contype = 'x' or contype = 'c' and (connoinherit or not convalidated)))
               then 'constraints that a table cannot copy'
           when exists (select from ix where not indisvalid or not starts_with(def, prefix) and not of_constraint)
               then 'an index that a table cannot copy'
           -- The server makes the names of the chunk's from these, and cuts them within a character.
           when exists (select from ix join pg_class c on c.oid = ix.indexrelid where c.relname ~ '[^ -~]'
                        and (getdatabaseencoding() = 'SQL_ASCII' or of_constraint
                            and octet_length(c.relname::text) > 50))
                            then 'an index whose name could not be given to that of a chunk'
           -- The check of the rows crashes the server over a null (2.29).
           when exists (select from _timescaledb_catalog.dimension d
               join pg_attribute a on a.attrelid = h.oid and a.attname = d.column_name
                        where d.hypertable_id = h.hypertable and not a.attnotnull) then 'a dimension may be null'
           when h.reltablespace <> 0 or exists (select from ix where reltablespace <> 0)
               or exists (select from _timescaledb_catalog.tablespace where hypertable_id = h.hypertable)
                   then 'tablespaces'
           when exists (select from _timescaledb_catalog.chunk_column_stats where hypertable_id = h.hypertable)
               then 'chunk skipping'
           when exists (select from aclexplode(h.relacl) a where a.grantor <> h.relowner)
               or (select count(*) from aclexplode(h.relacl) a where a.grantee = h.relowner)
                  <> (select count(*) from aclexplode(acldefault('r', h.relowner)) where h.relacl is not null)
                      then 'privileges that a table cannot copy'
           when exists (select from pg_event_trigger where evtenabled <> 'D' and evtname not like 'timescaledb\_%')
               then 'event triggers would see the table'
           when exists (select from pg_replication_slots
               where slot_type = 'logical' and database = current_database()) then 'subscribers would see the table'
           else ''
       end
from h
