-- The statements that make a plain table $2 like the hypertable $1 or a chunk of
-- it, $4 (LIKE brings columns, defaults, checks, storage; a native chunk also has
-- options and statistics targets), those that build the indexes, and the names
-- of these on the hypertable, as bytes: in a database of SQL_ASCII the server cuts
-- them within characters, and does not send that as text. Names of indexes are $3
-- and a number: the schema is shared by all lanes.
with h as (
    select c.*, n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = $1
), ix as (
    select i.*, c.relname, c.reltablespace, k.oid as constraint_oid, k.conname,
           row_number() over (order by i.indexrelid) as n,
           pg_get_indexdef(i.indexrelid) as def,
           format('CREATE %sINDEX %I ON %I.%I ', case when i.indisunique then 'UNIQUE ' else '' end,
               c.relname, h.nspname, h.relname) as prefix
    from h
    join pg_index i on i.indrelid = h.oid
    join pg_class c on c.oid = i.indexrelid
    left join pg_constraint k on k.conindid = i.indexrelid and k.conrelid = h.oid and k.contype in ('p', 'u')
)
select array(
           select format('create table %s (like %s including defaults including generated including storage '
               || '%s including constraints)', $2::text, $4::text,
               case when current_setting('server_version_num')::int >= 140000 then 'including compression' end)
               || coalesce((select ' with (' || string_agg(format('%I=%L', option_name, option_value), ', ') || ')'
                   from pg_options_to_table(h.reloptions)), '')
           union all
           select format('alter table %s alter column %I set statistics %s', $2::text, attname, attstattarget)
           from pg_attribute where attrelid = h.oid and attnum > 0 and not attisdropped
               and coalesce(attstattarget, -1) <> -1
           union all
           -- PostgreSQL 17.12 keeps a version of its own (pg_attver) among a column's options.
           select format('alter table %s alter column %I set (%s)', $2::text, attname,
               string_agg(format('%I=%L', option_name, option_value), ', '))
           from pg_attribute cross join pg_options_to_table(attoptions)
           where attrelid = h.oid and attnum > 0 and not attisdropped and option_name <> 'pg_attver'
           group by attname),
       array(
           select case
                      when constraint_oid is not null
                          then format('alter table %s add constraint %I %s', $2::text, $3::text || n,
                          pg_get_constraintdef(constraint_oid))
                      else format('create %sindex %I on %s %s', case when indisunique then 'unique ' else '' end,
                          $3::text || n, $2::text, substr(def, length(prefix) + 1))
                  end
           from ix order by n),
       array(select case when getdatabaseencoding() = 'SQL_ASCII' then convert_to(x.name, 'SQL_ASCII')
           else textsend(x.name) end
             from (select n, coalesce(conname, relname)::text as name from ix) x order by n),
       array(select constraint_oid is not null from ix order by n)
from h
