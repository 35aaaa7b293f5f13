package cost

// Dollars is an amount as low as it can be, as it is likely to be, and as it can get.
type Dollars struct {
	Low      float64 `json:"low"`
	Expected float64 `json:"expected"`
	High     float64 `json:"high"`
}

// Plus is the sum.
func (d Dollars) Plus(o Dollars) Dollars {
	return Dollars{d.Low + o.Low, d.Expected + o.Expected, d.High + o.High}
}

// Line is one operation of one step.
type Line struct {
	Step  Step    `json:"step"`
	Op    Op      `json:"op"`
	Exact bool    `json:"exact"`
	Count Range   `json:"count"` // of requests; of lambda_mib_secs: MiB-seconds
	Units Range   `json:"units"` // that are billed
	USD   Dollars `json:"usd"`
}

// Bill is what a run costs, line by line.
type Bill struct {
	Lines []Line  `json:"lines"`
	USD   Dollars `json:"usd"`
}

// Estimate is the bill of a job of which is known between what it lies: each count is
// the least of the low job, the expected of the expected one and the most of the high
// one. Three times the same job is the bill of that.
func Estimate(low, expected, high Job, p Prices) Bill {
	l, e, h := CountOf(low), CountOf(expected), CountOf(high)
	b := Bill{Lines: []Line{}}
	for _, step := range Steps {
		for _, op := range Ops {
			x := Line{Step: step, Op: op, Count: span(l[step][op].N, e[step][op].N, h[step][op].N), Units: span(l[step][op].Units, e[step][op].Units, h[step][op].Units)}
			if x.Count == (Range{}) {
				continue
			}
			x.Exact = x.Count.Exact()
			usd := p.USD[op] / 1e6
			x.USD = Dollars{float64(x.Units.Low) * usd, float64(x.Units.Expected) * usd, float64(x.Units.High) * usd}
			b.Lines = append(b.Lines, x)
			b.USD = b.USD.Plus(x.USD)
		}
	}
	return b
}

// span keeps the three in order, whatever the three jobs are.
func span(low, expected, high Range) Range {
	r := Range{low.Low, expected.Expected, high.High}
	r.Low = min(r.Low, r.Expected)
	r.High = max(r.High, r.Expected)
	return r
}

// Total is the sum of an operation over the steps.
func (b Bill) Total(op Op) (n Range, usd Dollars) {
	for _, l := range b.Lines {
		if l.Op == op {
			n, usd = n.Plus(l.Count), usd.Plus(l.USD)
		}
	}
	return n, usd
}
