-- What makes the relation $2 belong to those that the table $1 belongs to, as the
-- server does it with a new chunk: owner and privileges.
with h as (select relowner, relacl from pg_class where oid = $1)
select array(
    select format('alter table %s owner to %I', $2::text, pg_get_userbyid(h.relowner))
    from h
    where pg_get_userbyid(h.relowner) <> current_user
    union all
    select format('grant %s on %s to %s%s', a.privilege_type, $2::text,
                  case when a.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end,
                  case when a.is_grantable then ' with grant option' else '' end)
    from h cross join lateral aclexplode(h.relacl) a
    where a.grantee <> h.relowner)
