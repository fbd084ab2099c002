-- Is there a __backfill schema, is it ours, and may it be trusted? Somebody
-- else's schema of that name could carry triggers or rules that run as us: it
-- is trusted when its owner is us, a role we belong to, or the owner of the
-- database, and nothing is attached to the table.
select n.oid is not null,
       coalesce(r.rolname, ''),
       coalesce(pg_has_role(current_user, n.nspowner, 'member') or n.nspowner = d.datdba or r.rolsuper, false),
       to_regclass('__backfill.task') is not null and to_regclass('__backfill.version') is not null,
       coalesce((select bool_and(pg_has_role(current_user, c.relowner, 'member') or c.relowner = d.datdba or cr.rolsuper)
                        and bool_and(c.relkind = 'r' and not c.relhastriggers and not c.relhasrules and not c.relrowsecurity)
                 from pg_class c join pg_roles cr on cr.oid = c.relowner
                 where c.relnamespace = n.oid and c.relname in ('task', 'version')), true)
from pg_database d
left join pg_namespace n on n.nspname = '__backfill'
left join pg_roles r on r.oid = n.nspowner
where d.datname = current_database()
