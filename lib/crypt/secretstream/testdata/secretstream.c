/* Encrypts (e) or decrypts (d) standard input with libsodium in WAL-G's
 * framing: secretstream e|d KEY-IN-HEX. With p every third chunk is pushed
 * (tag 1) and with r rekeyed (tag 2). */
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define CHUNK 8192
#define ABYTES crypto_secretstream_xchacha20poly1305_ABYTES
#define HEADER crypto_secretstream_xchacha20poly1305_HEADERBYTES

int main(int argc, char **argv) {
	crypto_secretstream_xchacha20poly1305_state s;
	unsigned char key[32], header[HEADER], in[CHUNK + ABYTES], out[CHUNK + ABYTES], tag = 0;
	unsigned long long size;
	size_t n, chunks = 0;
	if (argc != 3 || sodium_init() < 0 || sodium_hex2bin(key, 32, argv[2], 64, NULL, &n, NULL) != 0 || n != 32)
		return 64;
	if (argv[1][0] == 'd') {
		if (fread(header, 1, HEADER, stdin) != HEADER ||
		    crypto_secretstream_xchacha20poly1305_init_pull(&s, header, key) != 0)
			return 65;
		while ((n = fread(in, 1, CHUNK + ABYTES, stdin)) > 0) {
			if (tag == crypto_secretstream_xchacha20poly1305_TAG_FINAL ||
			    crypto_secretstream_xchacha20poly1305_pull(&s, out, &size, &tag, in, n, NULL, 0) != 0)
				return 65;
			fwrite(out, 1, size, stdout);
		}
		return tag == crypto_secretstream_xchacha20poly1305_TAG_FINAL ? 0 : 65;
	}
	crypto_secretstream_xchacha20poly1305_init_push(&s, header, key);
	fwrite(header, 1, HEADER, stdout);
	do {
		n = fread(in, 1, CHUNK, stdin);
		tag = n < CHUNK ? 3 : 0;
		if (tag == 0 && ++chunks % 3 == 0)
			tag = argv[1][0] == 'p' ? 1 : argv[1][0] == 'r' ? 2 : 0;
		crypto_secretstream_xchacha20poly1305_push(&s, out, &size, in, n, NULL, 0, tag);
		fwrite(out, 1, size, stdout);
	} while (n == CHUNK);
	return 0;
}
