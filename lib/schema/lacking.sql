-- Which of the objects (types $1, identities $2) this server does not have.
select u.n::int
from unnest($1::text[], $2::text[]) with ordinality u(type, identity, n)
where case when type in ('function', 'aggregate', 'procedure') then to_regprocedure(identity) is null
           when type in ('table', 'view', 'sequence') then to_regclass(identity) is null
           else to_regtype(identity) is null end
order by n
