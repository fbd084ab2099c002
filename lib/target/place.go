package target

import (
	"errors"
	"regexp"
	"strconv"
	"strings"

	"bf/lib/pg"
	"bf/lib/task"

	"github.com/jackc/pgx/v5/pgconn"
)

// copyLine is what the server says of the row that COPY was at.
var copyLine = regexp.MustCompile(`(?m)^COPY .*, line (\d+)(?:, column (.*?):)?`)

// place names file and line of a row of CSV that the server has refused. They come at the end
// of the part, which is read for it: to go on, the reader has to read it anyway.
func (ld *load) place(err error) error {
	var p *pgconn.PgError
	if ld.task.Kind != task.KindCSV || !errors.As(err, &p) ||
		!strings.HasPrefix(p.Code, "22") && !strings.HasPrefix(p.Code, "23") {
		return err
	}
	m := copyLine.FindStringSubmatch(p.Where)
	if m == nil {
		return err
	}
	_, _ = ld.reader.NextPart()
	row, _ := strconv.ParseInt(m[1], 10, 64)
	place := ld.reader.Lines().Place(row)
	if place == "" {
		return err
	}
	if m[2] != "" {
		place += ", column " + m[2]
	}
	return &pg.Error{Side: pg.Target, Object: place, Err: p,
		Hint: "correct the file and run bf-stage again, or the column of the target"}
}
