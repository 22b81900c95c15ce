// SPDX-License-Identifier: Apache-2.0
// Stands where libhidapi-hidraw.so.0 stands: at most one device, whose input reports come from a
// unix socket. Found through LD_LIBRARY_PATH, so that the real pyspacemouse, easyhid and cffi run
// on it unchanged. $VLA_RL_HID is the path of the socket; beside it lies a file with the suffix
// ".id" that holds vendor, product and name while a device is plugged in.
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <wchar.h>

struct hid_device_info {
  char *path;
  unsigned short vendor_id, product_id;
  wchar_t *serial_number;
  unsigned short release_number;
  wchar_t *manufacturer_string, *product_string;
  unsigned short usage_page, usage;
  int interface_number;
  struct hid_device_info *next;
};
typedef struct {
  int fd;
  int is_nonblocking;
} hid_device;

static const char *socket_path(void) {
  const char *path = getenv("VLA_RL_HID");
  return path ? path : "";
}

static wchar_t *wide(const char *text) {
  wchar_t *made = calloc(strlen(text) + 1, sizeof *made);
  mbstowcs(made, text, strlen(text));
  return made;
}

int hid_init(void) { return 0; }
int hid_exit(void) { return 0; }

struct hid_device_info *hid_enumerate(unsigned short vendor, unsigned short product) {
  char path[256], name[128] = "";
  unsigned found_vendor = 0, found_product = 0;
  snprintf(path, sizeof path, "%s.id", socket_path());
  FILE *file = fopen(path, "r");
  if (!file) return NULL;
  int count = fscanf(file, "%x %x %127[^\n]", &found_vendor, &found_product, name);
  fclose(file);
  if (count < 2) return NULL;
  if ((vendor && vendor != found_vendor) || (product && product != found_product)) return NULL;
  struct hid_device_info *info = calloc(1, sizeof *info);
  info->path = strdup(socket_path());
  info->vendor_id = found_vendor;
  info->product_id = found_product;
  info->serial_number = wide("1");
  info->manufacturer_string = wide("3Dconnexion");
  info->product_string = wide(name);
  info->usage_page = 1;
  info->usage = 8;
  return info;
}

void hid_free_enumeration(struct hid_device_info *info) {
  while (info) {
    struct hid_device_info *next = info->next;
    free(info->path);
    free(info->serial_number);
    free(info->manufacturer_string);
    free(info->product_string);
    free(info);
    info = next;
  }
}

hid_device *hid_open_path(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0) return NULL;
  if (connect(fd, (struct sockaddr *)&address, sizeof address)) {
    close(fd);
    return NULL;
  }
  hid_device *device = calloc(1, sizeof *device);
  device->fd = fd;
  return device;
}

hid_device *hid_open(unsigned short vendor, unsigned short product, const wchar_t *serial) {
  (void)vendor, (void)product, (void)serial;
  return hid_open_path(socket_path());
}

int hid_read_timeout(hid_device *device, unsigned char *data, size_t length, int milliseconds) {
  struct pollfd ready = {.fd = device->fd, .events = POLLIN};
  int count = poll(&ready, 1, milliseconds);
  if (count == 0) return 0;
  if (count < 0) return -1;
  ssize_t size = recv(device->fd, data, length, 0);
  return size > 0 ? (int)size : -1;
}

int hid_read(hid_device *device, unsigned char *data, size_t length) {
  return hid_read_timeout(device, data, length, device->is_nonblocking ? 0 : -1);
}

int hid_set_nonblocking(hid_device *device, int is_nonblocking) {
  device->is_nonblocking = is_nonblocking;
  return 0;
}

int hid_write(hid_device *device, const unsigned char *data, size_t length) {
  return (int)send(device->fd, data, length, MSG_NOSIGNAL);
}

int hid_send_feature_report(hid_device *device, const unsigned char *data, size_t length) {
  (void)device, (void)data;
  return (int)length;
}

int hid_get_feature_report(hid_device *device, unsigned char *data, size_t length) {
  (void)device, (void)data, (void)length;
  return -1;
}

void hid_close(hid_device *device) {
  close(device->fd);
  free(device);
}

static int no_string(wchar_t *text, size_t length) {
  if (length) *text = 0;
  return 0;
}
int hid_get_manufacturer_string(hid_device *d, wchar_t *s, size_t n) { (void)d; return no_string(s, n); }
int hid_get_product_string(hid_device *d, wchar_t *s, size_t n) { (void)d; return no_string(s, n); }
int hid_get_serial_number_string(hid_device *d, wchar_t *s, size_t n) { (void)d; return no_string(s, n); }
int hid_get_indexed_string(hid_device *d, int i, wchar_t *s, size_t n) { (void)d, (void)i; return no_string(s, n); }
const wchar_t *hid_error(hid_device *device) { (void)device; return L""; }
