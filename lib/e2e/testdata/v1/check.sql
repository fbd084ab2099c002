-- Is there a __backfill schema, is it ours, and may it be trusted? Whoever owns
-- a table can make whoever writes to it run their code (triggers, rules,
-- policies, defaults, constraints, children): schema and tables have to belong
-- to us, a role we are a member of, the owner of the database or a superuser.
-- pg_has_role() calls a superuser a member of every role, so for one only the
-- membership of others counts: anybody who may create a schema could lay the
-- trap. Triggers and rules can also come from those with the TRIGGER privilege.
with trusted(role) as (
    select r.oid
    from pg_roles r
    join pg_roles me on me.rolname = current_user
    join pg_database d on d.datname = current_database()
    where r.oid in (me.oid, d.datdba) or r.rolsuper or not me.rolsuper and pg_has_role(me.oid, r.oid, 'member')
)
select n.oid is not null,
       coalesce(pg_get_userbyid(n.nspowner), ''),
       coalesce(n.nspowner in (select role from trusted), false),
       to_regclass('__backfill.task') is not null and to_regclass('__backfill.version') is not null,
       coalesce((select bool_and(c.relowner in (select role from trusted)
                                 and c.relkind = 'r' and not c.relrowsecurity
                                 -- pg_class only says that there may be some
                                 and not exists (select from pg_trigger where tgrelid = c.oid)
                                 and not exists (select from pg_rewrite where ev_class = c.oid)
                                 and not exists (select from pg_inherits where inhparent = c.oid))
                 from pg_class c
                 where c.relnamespace = n.oid and c.relname in ('task', 'version', 'aggregate', 'job')), true)
from (values (to_regnamespace('__backfill'))) s(schema)
left join pg_namespace n on n.oid = s.schema
