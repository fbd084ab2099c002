-- Rows of the source: some are beyond the completion point.
insert into plain select d + n * interval '14 minutes', n % 7, n * random(), repeat('x', (n * 37) % 200)
from generate_series('2024-01-01'::timestamptz, '2024-01-26', '1 day') d, generate_series(0, 99) n;
insert into linked select d + n * interval '28 minutes', 1 + n % 20, n * random()
from generate_series('2024-01-14'::timestamptz, '2024-01-26', '1 day') d, generate_series(0, 49) n;
insert into coarse select d + n * interval '28 minutes', 1 + n % 20, n * random()
from generate_series('2024-01-14'::timestamptz, '2024-01-26', '1 day') d, generate_series(0, 49) n;
insert into hashed select d + n * interval '28 minutes', n, part(n), n * random()
from generate_series('2024-01-20'::timestamptz, '2024-01-26', '1 day') d, generate_series(0, 49) n;
insert into packed select d + n * interval '14 minutes', n % 7, n * random(), repeat('y', (n * 37) % 200)
from generate_series('2024-01-14'::timestamptz, '2024-01-24', '1 day') d, generate_series(0, 99) n;
insert into tight select d + n * interval '14 minutes', n % 7, n * random(), repeat('z', (n * 37) % 200)
from generate_series('2024-01-16'::timestamptz, '2024-01-24', '1 day') d, generate_series(0, 99) n;
insert into heaped select d + n * interval '14 minutes', n % 7, n * random(), repeat('h', (n * 37) % 200)
from generate_series('2024-01-16'::timestamptz, '2024-01-26', '1 day') d, generate_series(0, 99) n;
insert into watched select d + n * interval '14 minutes', n % 7, n * random(), repeat('w', (n * 37) % 200)
from generate_series('2024-01-18'::timestamptz, '2024-01-24', '1 day') d, generate_series(0, 99) n;
insert into listed_rows select d + n * interval '14 minutes', n % 7, n * random(), repeat('l"
', (n * 37) % 50) from generate_series('2024-01-14'::timestamptz, '2024-01-26', '1 day') d, generate_series(0, 99) n;
