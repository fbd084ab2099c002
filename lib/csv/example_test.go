package csv_test

import (
	"fmt"
	"io"
	"strings"

	"bf/lib/csv"
)

// Records become rows of COPY text, and each says its time and its line.
func Example() {
	file := "dev;time;note\n" +
		"7;2024-01-01 00:00:00;\"a\tb\"\n" +
		"8;2024-01-01 00:00:01;\n"
	format, err := csv.Dialect{Delimiter: ";"}.Format()
	if err != nil {
		panic(err)
	}
	r := csv.NewReader(strings.NewReader(file), format)
	names, err := r.Header()
	if err != nil {
		panic(err)
	}
	columns, err := csv.Match("metrics.csv", names, []csv.Column{{Name: "time", Type: "timestamp with time zone"},
		{Name: "dev", Type: "integer"}, {Name: "note", Type: "text"}})
	if err == nil {
		err = r.Columns(columns, "time")
	}
	if err != nil {
		panic(err)
	}
	for {
		row, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			panic(err)
		}
		fmt.Printf("line %d, %s: %q\n", row.Line, r.TimeText(row.Time), row.Text)
	}
	// Output:
	// line 2, 2024-01-01 00:00:00+00: "7\t2024-01-01 00:00:00\ta\\tb\n"
	// line 3, 2024-01-01 00:00:01+00: "8\t2024-01-01 00:00:01\t\\N\n"
}

// What is wrong with a record is said with its place; the next one can be read.
func ExampleReader_Next() {
	format, err := csv.Dialect{}.Format()
	if err != nil {
		panic(err)
	}
	r := csv.NewReader(strings.NewReader("yesterday,1\n2024-01-01,2\n"), format)
	r.File = "metrics.csv"
	err = r.Columns([]csv.Column{{Name: "day", Type: "date"}, {Name: "n", Type: "integer"}}, "day")
	if err != nil {
		panic(err)
	}
	_, err = r.Next()
	fmt.Println(err)
	row, err := r.Next()
	fmt.Printf("%q %v\n", row.Text, err)
	// Output:
	// metrics.csv:1, column day: not a time of the form 2024-01-02 03:04:05.678901+00: "yesterday"
	// "2024-01-01\t2\n" <nil>
}
