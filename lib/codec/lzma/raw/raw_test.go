package raw

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"walg/lib/decode/decodetest"
)

// script is a list of symbols, and what they stand for.
type script struct {
	symbols []Symbol
	plain   []byte
	last    [4]int
}

func newScript() *script { return &script{last: [4]int{1, 1, 1, 1}} }

func (s *script) literal(b byte) {
	var before, other byte
	if n := len(s.plain); n > 0 {
		before = s.plain[n-1]
		if s.last[0] <= n {
			other = s.plain[n-s.last[0]]
		}
	}
	s.symbols = append(s.symbols, Literal(b, before, other))
	s.plain = append(s.plain, b)
}

// copy makes the plain bytes of a match, byte by byte.
func (s *script) copy(length, distance int) {
	for range length {
		s.plain = append(s.plain, s.plain[len(s.plain)-distance])
	}
}

func (s *script) match(length, distance int) {
	s.symbols = append(s.symbols, Match(length, distance))
	s.copy(length, distance)
	s.last = [4]int{distance, s.last[0], s.last[1], s.last[2]}
}

func (s *script) repeat(length, which int) {
	s.symbols = append(s.symbols, Repeat(length, which))
	d := s.last[which]
	copy(s.last[1:which+1], s.last[:which])
	s.last[0] = d
	s.copy(length, d)
}

func (s *script) short() {
	s.symbols = append(s.symbols, Short())
	s.copy(1, s.last[0])
}

// random adds n symbols of all kinds, no match from farther than reach.
func (s *script) random(r *rand.Rand, n, reach int) {
	length := func() int { return MinMatch + r.IntN(1<<r.IntN(9)) + r.IntN(MaxMatch-MinMatch-255+1) }
	for range n {
		have := min(len(s.plain), reach)
		switch k := r.IntN(8); {
		case k < 3 || have == 0:
			s.literal(byte(r.IntN(1 << r.IntN(9))))
		case k < 5:
			s.match(length(), 1+r.IntN(min(have, 1<<r.IntN(24))))
		case k < 6 && s.last[0] <= have:
			s.short()
		default:
			if which := r.IntN(4); s.last[which] <= have {
				s.repeat(length(), which)
			}
		}
	}
}

// decode decodes in pieces of src and of the result.
func decode(t testing.TB, r *rand.Rand, coded []byte, window int) []byte {
	t.Helper()
	var d Decoder
	d.Open(window)
	d.SetProperties(Default)
	if err := d.Start([StartSize]byte(coded)); err != nil {
		t.Fatal(err)
	}
	filled := append(bytes.Clone(coded), make([]byte, Need)...)
	at := StartSize
	var plain []byte
	for !d.Ended() {
		piece := filled[at:min(len(filled), at+Need+r.IntN(1<<r.IntN(18)))]
		room := 1 + r.IntN(1<<r.IntN(20))
		out, n, err := d.Decode(piece, room)
		if err != nil {
			t.Fatalf("after %d bytes: %v", len(plain), err)
		}
		if len(out) > room {
			t.Fatalf("%d bytes in room for %d", len(out), room)
		}
		if at += n; at > len(coded) {
			t.Fatalf("more than all of %d bytes taken", len(coded))
		}
		plain = append(plain, out...)
	}
	if at != len(coded) || !d.Whole() {
		t.Fatalf("at the end %d of %d bytes are taken, whole %v", at, len(coded), d.Whole())
	}
	return plain
}

func TestSymbolsComeBackAsWhatTheyStandFor(t *testing.T) {
	r := decodetest.Rand(t)
	for range decodetest.Soak(1500, 100_000) {
		window := MinWindow << r.IntN(10)
		s := newScript()
		s.random(r, r.IntN(1<<r.IntN(14)), window)
		e := NewEncoder()
		var coded []byte
		for rest := s.symbols; len(rest) > 0; {
			n := 1 + r.IntN(len(rest))
			coded = e.Append(coded, rest[:n])
			rest = rest[n:]
		}
		coded = e.Finish(coded)
		if !bytes.Equal(decode(t, r, coded, window), s.plain) {
			t.Fatalf("%d symbols, window %d: %d bytes come back changed", len(s.symbols), window, len(s.plain))
		}
	}
}

// Each slot of distances is met, to the end of a window of 16 MiB.
func TestAllDistancesComeBack(t *testing.T) {
	const window = 16 << 20
	r := decodetest.Rand(t)
	s := newScript()
	for range 1000 {
		s.literal(byte(r.Uint32()))
	}
	for len(s.plain) < window+1000 {
		s.match(MaxMatch, 1+r.IntN(min(len(s.plain), 1000)))
	}
	for d := 1; d <= window; d = d + d/3 + 1 {
		for _, d := range []int{d, min(d+1, window)} {
			s.match(MinMatch+r.IntN(6), d)
			s.literal(byte(r.Uint32()))
		}
	}
	s.match(MaxMatch, window)
	e := NewEncoder()
	if !bytes.Equal(decode(t, r, e.Finish(e.Append(nil, s.symbols)), window), s.plain) {
		t.Error("the content is changed")
	}
}

func TestMatchesFromBeforeTheBeginningAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		before int // literals
		bad    Symbol
	}{
		"a match at the beginning":   {0, Match(2, 1)},
		"a short one":                {0, Short()},
		"a repeat":                   {0, Repeat(2, 0)},
		"a match from too far":       {10, Match(2, 11)},
		"a match beyond the window":  {2 * MinWindow, Match(2, MinWindow+1)},
		"a match beyond 2 GiB":       {10, Match(2, 1<<31+5)},
		"a match that is almost end": {10, Match(2, 1<<32-1)},
	} {
		s := newScript()
		for i := range c.before {
			s.literal(byte(i))
		}
		e := NewEncoder()
		coded := append(e.Finish(e.Append(nil, append(s.symbols, c.bad))), make([]byte, Need)...)
		var d Decoder
		d.Open(MinWindow)
		d.SetProperties(Default)
		if err := d.Start([StartSize]byte(coded)); err != nil {
			t.Fatal(err)
		}
		coded = coded[StartSize:]
		var got []byte
		var err error
		for err == nil && !d.Ended() {
			var out []byte
			var n int
			out, n, err = d.Decode(coded, 1<<20)
			got, coded = append(got, out...), coded[n:]
		}
		if err != errDistance || !bytes.Equal(got, s.plain) {
			t.Errorf("%s: %v after %d bytes of %d", name, err, len(got), len(s.plain))
		}
	}
}

// A lying header costs no more than what comes.
func TestWindowGrowsWithTheData(t *testing.T) {
	var d Decoder
	d.Open(1<<32 - 1)
	for _, n := range []int{1, firstWindow, 4 * firstWindow, 3 << 20} {
		for i := 0; i < n; {
			i += len(d.Store(make([]byte, n-i)))
		}
		if at := d.base + d.at; len(d.buf) > 4*at+firstWindow {
			t.Errorf("after %d bytes the window takes %d", at, len(d.buf))
		}
	}
	if d.round {
		t.Error("the window did not grow before it went round")
	}
}

// Whatever comes: no panic, no more than asked for, and progress or an error.
func FuzzDecoder(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 10, 3000} {
		s := newScript()
		s.random(r, n, 1<<20)
		e := NewEncoder()
		f.Add(e.Finish(e.Append(nil, s.symbols)), byte(0x5d), uint16(n), 300)
	}
	f.Fuzz(func(t *testing.T, coded []byte, properties byte, window uint16, room int) {
		p, ok := ParseProperties(properties)
		if !ok || len(coded) < StartSize {
			return
		}
		room = 1 + max(room, 0)%(1<<17)
		var d Decoder
		d.Open(int(window))
		d.SetProperties(p)
		if d.Start([StartSize]byte(coded)) != nil {
			return
		}
		src := append(coded[StartSize:len(coded):len(coded)], make([]byte, Need)...)
		for total := 0; total < 16<<20 && !d.Ended(); {
			out, n, err := d.Decode(src, room)
			if err != nil || n > len(src)-Need {
				return
			}
			if len(out) > room || len(out) == 0 && !d.Ended() {
				t.Fatalf("%d bytes in room for %d", len(out), room)
			}
			total += len(out)
			src = src[n:]
		}
	})
}
