-- Columns of a compressed relation with what CREATE TABLE alone does not give
-- them. A column's collation is spelled out also where it is the database's
-- default: batches are ordered and their minima taken by it. Names are bytes: the
-- server cuts some within a character, and then a database of SQL_ASCII does not
-- send them as text.
select case when pg_encoding_to_char(d.encoding) = 'SQL_ASCII' then convert_to(a.attname::text, 'SQL_ASCII')
    else textsend(a.attname::text) end,
       format_type(a.atttypid, a.atttypmod), a.attstorage::text, coalesce(a.attstattarget, -1)::int,
       case when o.is_default then 'default ' || o.locale else coalesce(o.name, '') end,
       coalesce(o.locale, ''), coalesce(o.version, ''),
       pg_encoding_to_char(d.encoding)
from pg_attribute a
join pg_database d on d.datname = current_database()
left join lateral (
{order}
) o on true
where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
order by a.attnum
