// SPDX-License-Identifier: GPL-2.0
/*
 * The calls of VFIO that migrate a device, one function each.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/sizes.h>

#include "migration.h"

const u32 mig_states[MIG_NR_STATES] = {
	VFIO_DEVICE_STATE_STOP,
	VFIO_DEVICE_STATE_RUNNING,
	VFIO_DEVICE_STATE_STOP_COPY,
	VFIO_DEVICE_STATE_RESUMING,
	VFIO_DEVICE_STATE_RUNNING_P2P,
	VFIO_DEVICE_STATE_PRE_COPY,
	VFIO_DEVICE_STATE_PRE_COPY_P2P,
};

const char *mig_name(u32 state)
{
	static const char * const names[] = {
		[VFIO_DEVICE_STATE_ERROR] = "ERROR",
		[VFIO_DEVICE_STATE_STOP] = "STOP",
		[VFIO_DEVICE_STATE_RUNNING] = "RUNNING",
		[VFIO_DEVICE_STATE_STOP_COPY] = "STOP_COPY",
		[VFIO_DEVICE_STATE_RESUMING] = "RESUMING",
		[VFIO_DEVICE_STATE_RUNNING_P2P] = "RUNNING_P2P",
		[VFIO_DEVICE_STATE_PRE_COPY] = "PRE_COPY",
		[VFIO_DEVICE_STATE_PRE_COPY_P2P] = "PRE_COPY_P2P",
	};

	return state < ARRAY_SIZE(names) ? names[state] : "no state";
}

bool mig_is_pre_copy(u32 state)
{
	return state == VFIO_DEVICE_STATE_PRE_COPY || state == VFIO_DEVICE_STATE_PRE_COPY_P2P;
}

bool mig_is_saving(u32 state)
{
	return mig_is_pre_copy(state) || state == VFIO_DEVICE_STATE_STOP_COPY;
}

int __mig_feature(struct vfio_pci_device *pci, u32 flags, void *data, size_t size)
{
	struct vfio_device_feature *feature = calloc_assert(1, sizeof(*feature) + size);
	int ret;

	feature->argsz = sizeof(*feature) + size;
	feature->flags = flags;
	if (size)
		memcpy(feature->data, data, size);
	ret = ioctl(pci->fd, VFIO_DEVICE_FEATURE, feature) ? -errno : 0;
	if (size)
		memcpy(data, feature->data, size);
	free(feature);

	return ret;
}

int __mig_set_state(struct vfio_pci_device *pci, u32 state, int *fd)
{
	struct vfio_device_feature_mig_state mig = { .device_state = state, .data_fd = -1 };
	int ret;

	ret = __mig_feature(pci, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
			    &mig, sizeof(mig));
	*fd = mig.data_fd;

	return ret;
}

int mig_open(struct vfio_pci_device *pci, u32 state)
{
	int fd;

	VFIO_ASSERT_EQ(__mig_set_state(pci, state, &fd), 0, "to %s\n", mig_name(state));
	VFIO_ASSERT_LE(0, fd, "to %s\n", mig_name(state));

	return fd;
}

void mig_set_state(struct vfio_pci_device *pci, u32 state)
{
	int fd;

	VFIO_ASSERT_EQ(__mig_set_state(pci, state, &fd), 0, "to %s\n", mig_name(state));
	VFIO_ASSERT_EQ(fd, -1, "to %s\n", mig_name(state));
}

u32 mig_state(struct vfio_pci_device *pci)
{
	struct vfio_device_feature_mig_state mig = {};

	VFIO_ASSERT_EQ(__mig_feature(pci, VFIO_DEVICE_FEATURE_GET |
				     VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &mig, sizeof(mig)), 0);
	VFIO_ASSERT_EQ(mig.data_fd, -1);

	return mig.device_state;
}

u64 mig_flags(struct vfio_pci_device *pci)
{
	struct vfio_device_feature_migration mig = {};

	VFIO_ASSERT_EQ(__mig_feature(pci, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION,
				     &mig, sizeof(mig)), 0);

	return mig.flags;
}

u64 mig_data_size(struct vfio_pci_device *pci)
{
	struct vfio_device_feature_mig_data_size mig = {};

	VFIO_ASSERT_EQ(__mig_feature(pci, VFIO_DEVICE_FEATURE_GET |
				     VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, &mig, sizeof(mig)), 0);

	return mig.stop_copy_length;
}

int __mig_precopy_info(int fd, struct vfio_precopy_info *info)
{
	*info = (struct vfio_precopy_info){ .argsz = sizeof(*info) };

	return ioctl(fd, VFIO_MIG_GET_PRECOPY_INFO, info) ? -errno : 0;
}

ssize_t mig_read(int fd, struct mig_stream *stream, size_t size)
{
	ssize_t got;

	stream->data = realloc(stream->data, stream->size + size);
	VFIO_ASSERT_NOT_NULL(stream->data);
	got = read(fd, stream->data + stream->size, size);
	if (got < 0)
		return -errno;
	stream->size += got;

	return got;
}

void mig_read_all(int fd, struct mig_stream *stream)
{
	struct vfio_precopy_info info;
	size_t end = SIZE_MAX;
	ssize_t got;

	/* A function that writes may have the next frame ready whenever one was read. */
	if (!__mig_precopy_info(fd, &info))
		end = stream->size + info.initial_bytes + info.dirty_bytes;
	while (stream->size < end) {
		got = mig_read(fd, stream, min_t(size_t, SZ_16K, end - stream->size));
		VFIO_ASSERT_LE(0, got, "read: %d\n", (int)got);
		if (!got)
			break;
	}
}

void mig_free(struct mig_stream *stream)
{
	free(stream->data);
	*stream = (struct mig_stream){};
}

int __mig_write(int fd, const void *data, size_t size, size_t piece)
{
	for (size_t at = 0; at < size;) {
		ssize_t put = write(fd, data + at, min(piece, size - at));

		if (put < 0)
			return -errno;
		VFIO_ASSERT_LT(0, put);
		at += put;
	}

	return 0;
}

/* CRC-32 as zlib has it, a bit at a time. */
u32 mig_crc(const void *data, size_t size)
{
	const u8 *bytes = data;
	u32 crc = ~0;

	for (size_t at = 0; at < size; at++) {
		crc ^= bytes[at];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}

	return ~crc;
}
