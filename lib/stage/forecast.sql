-- What the role lacks on the target for a hypertable ($1, its OID): to own it, and to
-- create the schema __backfill. "" for nothing.
select concat_ws(', ',
    case when not pg_has_role(c.relowner, 'usage')
         then format('role %I does not own it (its owner is %I)', current_user, pg_get_userbyid(c.relowner)) end,
    case when to_regnamespace('__backfill') is null and not has_database_privilege(current_database(), 'create')
         then format('role %I may not create schemas', current_user) end)
from pg_class c
where c.oid = $1
