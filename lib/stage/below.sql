-- Those of the relations $1 that are a partition or a child, at any depth, of another one
-- of them.
with recursive up(oid, above) as (
    select inhrelid, inhparent from pg_inherits where inhrelid = any($1)
  union
    select u.oid, i.inhparent from up u join pg_inherits i on i.inhrelid = u.above)
select distinct oid from up where above = any($1)
