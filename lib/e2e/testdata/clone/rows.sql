-- Rows for the hypertables, from before the completion point and after it.
insert into "Größe"."Mess Werte" ("Zeit", "Gerät", "Wert", "Text", z, p, big)
select t, 1 + n % 5, n, nullif('Text ' || n, 'Text 7'), 'gut', n % 100, repeat('x', n % 50)
from (select timestamptz '2024-05-01Z' + n * interval '37 minutes' as t, n from generate_series(0, 150) n) s;
insert into zähler select n, n % 7, 'k' || n from generate_series(-700, 3000, 3) n;
insert into "J son" select jsonb_build_object('t', timestamptz '2024-05-01Z' + n * interval '11 minutes'), n % 3
    from generate_series(0, 100) n;
insert into tage select date '2024-01-01' + n, timestamp '2024-01-01' + n * interval '3 hours', current_user
    from generate_series(0, 40) n;
insert into "Nackt" select timestamp '2024-05-01' + n * interval '1 second' from generate_series(0, 600) n;
