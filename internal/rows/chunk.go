package rows

import (
	"fmt"
	"math"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/schema"
)

// parquetSchema is the schema as the files have it: flat, every column optional,
// times in UTC microseconds.
func parquetSchema(s Schema) (*schema.GroupNode, error) {
	fields := make(schema.FieldList, 0, len(s.Fields))
	for _, f := range s.Fields {
		var (
			logical  schema.LogicalType = schema.NoLogicalType{}
			physical                    = parquet.Types.Int64
		)
		switch f.Kind {
		case KindString:
			logical, physical = schema.StringLogicalType{}, parquet.Types.ByteArray
		case KindBytes:
			physical = parquet.Types.ByteArray
		case KindFloat:
			physical = parquet.Types.Double
		case KindBool:
			physical = parquet.Types.Boolean
		case KindTime:
			logical = schema.NewTimestampLogicalType(true, schema.TimeUnitMicros)
		}
		n, err := schema.NewPrimitiveNodeLogical(f.Name, parquet.Repetitions.Optional, logical, physical, -1, -1)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", f.Name, err)
		}
		fields = append(fields, n)
	}
	return schema.NewGroupNode("schema", parquet.Repetitions.Required, fields, -1)
}

// chunkRows is the number of rows that go to the library at once: it looks at the
// size of a page only between such runs.
const chunkRows = 1024

// pageScratch is the memory in which runs of a column are packed for the library:
// a level for each row, and the values of those that are not null.
type pageScratch struct {
	levels [chunkRows]int16
	ints   [chunkRows]int64
	floats [chunkRows]float64
	bools  [chunkRows]bool
	slices [chunkRows]parquet.ByteArray
}

// write gives the column to the chunk's writer, in runs that are short enough for
// pages to stay near pageBytes.
func (s *pageScratch) write(chunk file.ColumnChunkWriter, c *Column) error {
	for from := 0; from < len(c.Valid); {
		to := min(from+chunkRows, len(c.Valid))
		if c.wide() {
			to = c.cut(from, to, pageBytes)
		}
		n := 0
		for r := from; r < to; r++ {
			s.levels[r-from] = 0
			if !c.Valid[r] {
				continue
			}
			s.levels[r-from] = 1
			switch c.Kind {
			case KindString, KindBytes:
				s.slices[n] = c.Bytes(r)
			case KindFloat:
				s.floats[n] = math.Float64frombits(uint64(c.Nums[r]))
			case KindBool:
				s.bools[n] = c.Nums[r] != 0
			default:
				s.ints[n] = c.Nums[r]
			}
			n++
		}
		var err error
		levels := s.levels[:to-from]
		switch w := chunk.(type) {
		case *file.ByteArrayColumnChunkWriter:
			_, err = w.WriteBatch(s.slices[:n], levels, nil)
		case *file.Float64ColumnChunkWriter:
			_, err = w.WriteBatch(s.floats[:n], levels, nil)
		case *file.BooleanColumnChunkWriter:
			_, err = w.WriteBatch(s.bools[:n], levels, nil)
		case *file.Int64ColumnChunkWriter:
			_, err = w.WriteBatch(s.ints[:n], levels, nil)
		default:
			err = fmt.Errorf("a chunk writer of type %T", chunk)
		}
		if err != nil {
			return err
		}
		from = to
	}
	return nil
}
