package main

import (
	"encoding/base64"
	"encoding/xml"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"
)

// listing is what the listings' parameters ask for.
type listing struct {
	prefix, delimiter, encoding string
	after                       string // names up to this one were listed before
	most                        int
}

func listingOf(query url.Values, after, most string) listing {
	number, err := strconv.Atoi(query.Get(most))
	if err != nil || number > 1000 {
		number = 1000
	}
	return listing{
		prefix:    query.Get("prefix"),
		delimiter: query.Get("delimiter"),
		encoding:  query.Get("encoding-type"),
		after:     query.Get(after),
		most:      number,
	}
}

// name is a key in the encoding asked for.
func (l listing) name(key string) string {
	if l.encoding != "url" {
		return key
	}
	return strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(key))
}

func stamp(moment time.Time) string { return moment.UTC().Format("2006-01-02T15:04:05.000Z") }

type listedObject struct {
	Key, LastModified, ETag string
	Size                    int64
	StorageClass            string
}

type listedPrefix struct{ Prefix string }

type listAnswer struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	Xmlns                 string   `xml:"xmlns,attr"`
	Name, Prefix          string
	Delimiter             string `xml:",omitempty"`
	EncodingType          string `xml:",omitempty"`
	StartAfter            string `xml:",omitempty"`
	ContinuationToken     string `xml:",omitempty"`
	NextContinuationToken string `xml:",omitempty"`
	KeyCount, MaxKeys     int
	IsTruncated           bool
	Contents              []listedObject
	CommonPrefixes        []listedPrefix
}

// list is ListObjectsV2. A token is the last name listed, in base64: a key, or a common prefix.
func (s *server) list(w http.ResponseWriter, _ *http.Request, name, _ string, query url.Values) error {
	l := listingOf(query, "start-after", "max-keys")
	answer := listAnswer{
		Xmlns:             "http://s3.amazonaws.com/doc/2006-03-01/",
		Name:              name,
		Prefix:            l.name(l.prefix),
		Delimiter:         l.name(l.delimiter),
		EncodingType:      l.encoding,
		StartAfter:        l.name(l.after),
		ContinuationToken: query.Get("continuation-token"),
		MaxKeys:           l.most,
	}
	if token, err := base64.URLEncoding.DecodeString(answer.ContinuationToken); err != nil {
		return refusal("InvalidArgument")
	} else if len(token) > 0 {
		l.after = string(token)
	}
	s.store.in(name, func(b *bucket) { l.fill(&answer, b) })
	answer.KeyCount = len(answer.Contents) + len(answer.CommonPrefixes)
	return sendXML(w, answer)
}

// fill adds keys and common prefixes in byte order, until there are as many as asked for.
func (l listing) fill(answer *listAnswer, b *bucket) {
	keys := b.keys()
	last, count := l.after, 0
	at := sort.SearchStrings(keys, max(l.prefix, l.after))
	for at < len(keys) && strings.HasPrefix(keys[at], l.prefix) {
		key, common := keys[at], ""
		if head, _, split := strings.Cut(key[len(l.prefix):], l.delimiter); split && l.delimiter != "" {
			common = l.prefix + head + l.delimiter
		}
		if key == l.after || common != "" && common == l.after {
			at++
			continue
		}
		if count == l.most {
			answer.IsTruncated = true
			answer.NextContinuationToken = base64.URLEncoding.EncodeToString([]byte(last))
			return
		}
		count++
		if common == "" {
			answer.Contents = append(answer.Contents, l.listed(key, b.objects[key]))
			last = key
			at++
			continue
		}
		answer.CommonPrefixes = append(answer.CommonPrefixes, listedPrefix{l.name(common)})
		last = common
		at += sort.Search(len(keys)-at, func(i int) bool { return !strings.HasPrefix(keys[at+i], common) })
	}
}

func (l listing) listed(key string, there *object) listedObject {
	return listedObject{
		Key:          l.name(key),
		LastModified: stamp(there.modified),
		ETag:         quoted(there.etag),
		Size:         there.body.size(),
		StorageClass: "STANDARD",
	}
}
